"""What a protobuf message from elsewhere would take, seen before it is parsed: every empty message is an object."""

FIELDS = 1 << 19  # of a message, with all that are in it; integers that are packed count an eighth
DEEPEST = 50
_RAW = {"TYPE_STRING", "TYPE_BYTES", "TYPE_FLOAT", "TYPE_DOUBLE"}  # take no more than their bytes


def check_fields(data, descriptor):
    """ValueError where a message has too many fields, is nested too deep, or is cut off. descriptor: of its type."""
    _Walk(data).message(0, len(data), descriptor, 0)


class _Walk:
    def __init__(self, data):
        self.data, self.count, self.known = data, 0, {}

    def message(self, at, end, descriptor, depth):
        kinds = self.known.get(descriptor.full_name) or self._kinds(descriptor)
        if depth > DEEPEST:
            raise ValueError(f"is nested more than {DEEPEST} levels deep")
        while at < end:
            key, at = self.varint(at, end)
            self.count += 1
            if self.count > FIELDS:
                raise ValueError(f"has more than {FIELDS} fields, the limit")
            if key & 7 == 2:
                size, at = self.varint(at, end)
                kind = kinds.get(key >> 3, False)
                if at + size > end:
                    raise ValueError(f"is cut off in a field of {size} bytes")
                if kind is True:
                    self.count += size // 8
                elif kind:
                    self.message(at, at + size, kind, depth + 1)
                at += size
            elif key & 7 == 0:
                at = self.varint(at, end)[1]
            elif key & 7 in (1, 5):
                at += 8 if key & 7 == 1 else 4
            else:
                raise ValueError(f"has a field of wire type {key & 7}")

    def _kinds(self, descriptor):
        """{number: type of a message, True for integers, False for what takes its own bytes}."""
        raw = {getattr(descriptor.fields[0], kind) for kind in _RAW} if descriptor.fields else set()
        kinds = {f.number: f.message_type or f.type not in raw for f in descriptor.fields}
        return self.known.setdefault(descriptor.full_name, kinds)

    def varint(self, at, end):
        value = shift = 0
        while at < end and shift < 70:
            byte = self.data[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at
        raise ValueError("is cut off in a number")
