"""How long a decode step takes, learned while a host serves: a + b width + c read.

`width` and `read` are what `multiverse plan` calls the tokens that a step computes and those that it attends to. Its
roofline says from a data sheet what is learned here from the clock; what they share is these two terms.
"""

from __future__ import annotations

FORGET = 0.99
"""What counts of a step one step later: about the last hundred steps decide."""
LEAST = 8
"""Steps without which nothing is predicted."""
CLIP = 4.0
"""A step that took so many times as long as predicted, or as short, is learned as if it had taken just that."""
WRONG, RESET = 0.5, 16
"""So many predictions in a row that are off by more than this share: it is another host, and what was learned goes."""
_LIKE = 1e-6
"""Width and read that go together to within this share can't be told apart; each gets a part of what both take."""


class StepTime:
    """Recursive least squares with forgetting; `b` and `c` are never negative.

    What is kept are means and covariances of width, read and seconds, of which the least squares follow. So nothing
    grows where steps say nothing, and what no step has shown to cost anything costs nothing until one does.

    Attributes:
        learned: steps since it began, or began again.
        error: of the last prediction, |predicted / measured - 1|; `None` if there was none.
    """

    error: float | None

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.learned, self.error, self._wrong = 0, None, 0
        self._width = self._read = self._seconds = 0.0
        self._ww = self._wr = self._rr = self._ws = self._rs = 0.0
        self._base = self._per_token = self._per_read = 0.0

    @property
    def ready(self) -> bool:
        """Whether there is anything to predict from."""
        return self.learned >= LEAST

    def seconds(self, width: float, read: float) -> float:
        """Of a step that computes `width` tokens which attend to `read` tokens, all together."""
        return max(0.0, self._base + self.more(width, read))

    def more(self, width: float, read: float) -> float:
        """Seconds that a step takes longer for so much more."""
        return self._per_token * width + self._per_read * read

    def learn(self, width: float, read: float, seconds: float) -> None:
        """A step was measured.

        Args:
            seconds: more than 0.
        """
        predicted = self.seconds(width, read)
        if self.ready and predicted > 0:
            self.error = abs(predicted / seconds - 1)
            self._wrong = self._wrong + 1 if self.error > WRONG else 0
            if self._wrong >= RESET:
                self.reset()
            else:
                seconds = min(max(seconds, predicted / CLIP), predicted * CLIP)
        self.learned += 1
        self._note(width, read, seconds)
        self._per_token, self._per_read = self._slopes()
        self._base = self._seconds - self.more(self._width, self._read)

    def _note(self, width: float, read: float, seconds: float) -> None:
        """Means and covariances with one step more."""
        new = max(1 / self.learned, 1 - FORGET)
        w, r, s = width - self._width, read - self._read, seconds - self._seconds
        self._width, self._read, self._seconds = self._width + new * w, self._read + new * r, self._seconds + new * s
        old = 1 - new
        self._ww, self._wr, self._rr = (
            old * (self._ww + new * w * w),
            old * (self._wr + new * w * r),
            old * (self._rr + new * r * r),
        )
        self._ws, self._rs = old * (self._ws + new * w * s), old * (self._rs + new * r * s)

    def _slopes(self) -> tuple[float, float]:
        """`b` and `c` of the least squares among those that are not negative."""
        ww, rr, wr = self._ww * (1 + _LIKE), self._rr * (1 + _LIKE), self._wr
        if (determinant := ww * rr - wr * wr) > 0:
            b = (self._ws * rr - self._rs * wr) / determinant
            c = (self._rs * ww - self._ws * wr) / determinant
            if b >= 0 and c >= 0:
                return b, c
        b = max(0.0, self._ws / ww) if ww else 0.0
        c = max(0.0, self._rs / rr) if rr else 0.0
        return (b, 0.0) if b * self._ws >= c * self._rs else (0.0, c)
