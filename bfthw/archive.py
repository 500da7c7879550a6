"""Zip archives from elsewhere: few members, of methods that numpy and torch write, that unpack to what they claim."""

import zipfile
import zlib

from .reading import CheckpointError, short

ARRAYS = 1 << 14  # arrays of a file: far above any network, few enough to be listed
OTHERS = 20  # files beside them
DIRECTORY = 4 << 20  # bytes of an archive's directory
METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflate"}
# what zipfile raises for damaged, encrypted or unknown archives
ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)


class _Opening:
    """A file while its archive's directory is read, which zipfile does all at once."""

    def __init__(self, file):
        self.seek, self.tell, self.file = file.seek, file.tell, file

    def read(self, size=-1):
        if size > DIRECTORY:
            raise zipfile.BadZipFile(f"its directory has more than {DIRECTORY} bytes")
        return self.file.read(size if size >= 0 else DIRECTORY)


def open_archive(path, file, room):
    """A zipfile.ZipFile of an open file; CheckpointError where it unpacks to more than `room` bytes."""
    file.seek(0)
    archive = zipfile.ZipFile(_Opening(file))
    archive.fp = file
    members = archive.infolist()
    if len(members) > ARRAYS + OTHERS:
        raise CheckpointError(f"{path}: has more than {ARRAYS} arrays, the limit")
    # what is being unpacked is there twice for a moment
    size, once = sum(m.file_size for m in members), max((m.file_size for m in members if m.compress_type), default=0)
    if size + once > room:
        raise CheckpointError(f"{path}: unpacks to {size} bytes, {room} are the limit")
    for member in members:
        if member.compress_type not in METHODS:
            raise CheckpointError(
                f"{path}: {short(member.filename)} is compressed by method {member.compress_type}; numpy and torch "
                f"write {' and '.join(METHODS.values())} alone"
            )
    return archive


def unpacked(archive, member):
    """The bytes of a member, which must be as many as it claims; never more of them are made."""
    with archive.open(member) as file:
        # zipfile checks the sum where it comes to the end, and unpacks no more than it is asked for
        data = file.read(member.file_size + 1)
    if len(data) != member.file_size:
        raise zipfile.BadZipFile(f"{short(member.filename)} has {len(data)} bytes, it claims {member.file_size}")
    return data
