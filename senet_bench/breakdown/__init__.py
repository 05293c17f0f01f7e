"""`profile`: where the time of a network goes, and how much of it is attention's."""
