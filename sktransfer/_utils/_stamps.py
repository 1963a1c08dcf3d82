"""Whether a file is unchanged, as git finds out: by its size, times and inode."""

from operator import attrgetter

#: Seconds within which a file may change without a sign, on the coarsest file systems (FAT).
RACY_SECONDS = 2.0

#: The part of ``os.stat`` that changes with the content of a file.
stamp_of = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")


def is_settled(stamp, looked_at):
    """Whether every change after a look at a file, at a time in ns, gives it another stamp."""
    return max(stamp[1:3]) <= looked_at - RACY_SECONDS * 1e9
