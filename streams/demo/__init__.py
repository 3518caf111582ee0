"""The demonstration: simulated provider traffic, played through a real broker into a real worker."""
