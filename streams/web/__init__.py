"""The web view: any worker answers any question about any partition, in whole or not at all."""
