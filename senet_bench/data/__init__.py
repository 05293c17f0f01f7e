"""Images and labels: where they lie, how they are read, cropped, augmented and batched."""
