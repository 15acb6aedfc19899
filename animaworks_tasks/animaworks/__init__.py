"""The classes and records that AnimaWorks' own code expects."""
