"""What the commands do, as functions that return or yield values; nothing here prints."""
