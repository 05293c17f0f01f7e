"""`excitations`: what the gates of a network do, by class, depth and colour."""
