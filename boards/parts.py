"""Frames in parts, as docs/link.md has them: what is sent, and what comes back."""

from . import frames
from .frames import OUTPUTS, PART

SMALLEST, MORE = 16, 8  # bytes of a part on a bad line; that it grows with each that went well


class Parts:
    """A run: integers (N, inputs) to parts, their replies to integers (N, outputs).

    request(payload, offset, frames) -> Request for bytes of so many frames. ValueError from `take` and `outputs` for
    what no core gives. A part has whole frames, or a piece of one, so that its outputs fit its reply; where those of a
    single frame do not, only one part may be on its way, and empty ones get the rest.

    Members
    -------
    window
        parts on their way at once.
    answered
        frames whose outputs are there.
    """

    def __init__(self, q, input, output, request):
        self.q, self.input, self.output, self.request = q, input, output, request
        self.window = frames.WINDOW if output.frame_bytes <= OUTPUTS else 1
        self.sent, self.size, self.repeated, self._got = 0, PART, 0, bytearray()

    @property
    def answered(self):
        return len(self._got) // self.output.frame_bytes

    def requests(self):
        """Yield the Request of each part; where one only may be on its way, after the reply to that before."""
        whole = self.input.frame_bytes
        while True:
            ended, begun = divmod(self.sent, whole)
            if self.window == 1 and self.answered < ended:
                yield self.request(b"", self.sent, 1)
            elif ended == len(self.q):
                return
            else:
                count = max(1, min(self.size // whole, OUTPUTS // self.output.frame_bytes)) if not begun else 1
                payload = self.input.pack(self.q[ended : ended + count])[begun : begun + self.size]
                offset, self.sent = self.sent, self.sent + len(payload)
                yield self.request(payload, offset, count + 1)

    def take(self, request, reply, repeated):
        """What came for a part; repeated: how often anything was sent again until then."""
        taken, wanted = sum(reply[-1:]), len(request.payload)
        if not reply or taken > wanted or (taken < wanted and self.window > 1) or reply == b"\0":
            raise ValueError(f"a reply of {len(reply)} bytes that took {taken} of {wanted}")
        self.sent -= wanted - taken
        self._got += reply[:-1]
        ended, begun = divmod(request.offset + taken, self.input.frame_bytes)
        least, most = ended * self.output.frame_bytes, (ended + bool(begun)) * self.output.frame_bytes
        if len(self._got) > most or len(self._got) < least and len(reply) < PART:
            raise ValueError(f"{len(self._got)} bytes of outputs, {least} to {most} are possible")
        self.size = max(SMALLEST, self.size // 2) if repeated > self.repeated else min(PART, self.size + MORE)
        self.repeated = repeated

    def outputs(self):
        """Integers (answered, outputs)."""
        return self.output.unpack(bytes(self._got[: self.answered * self.output.frame_bytes]))
