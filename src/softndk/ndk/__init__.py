"""The NDKPI objects that a program holds, one file each."""
