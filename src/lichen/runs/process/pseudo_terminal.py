"""A terminal for the command's output, so that progress bars and colours stay as they are.

Only the output side is new: the command keeps the session, the process group, the controlling terminal and the
standard input it would have without Lichen. So the keyboard, Ctrl-C, Ctrl-Z, ``fg`` and background jobs are handled by
the kernel as ever, exactly once, and the user's terminal is never put into raw mode: if Lichen is killed, there is
nothing to restore. What must be carried over is

* the window size, from the real terminal to ours, at the start and whenever it changes;
* the modes a full-screen program sets through its standard output, from ours to the real terminal; they are put back
  when the program puts them back or ends.

Our terminal does not turn line feeds into carriage return and line feed; the real one does that once.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
from typing import Final

__all__ = ["OutputTerminal"]

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED, _CC = range(7)
_WINDOW_SIZE_BYTES: Final = struct.calcsize("HHHH")

_Attributes = list[int | list[bytes | int]]


class OutputTerminal:
    """A pseudo-terminal whose output is forwarded to a real terminal.

    Args:
        real: Descriptor of the real terminal; stays the caller's.

    Raises:
        OSError: The system has no pseudo-terminal left, or ``real`` is no terminal.
    """

    def __init__(self, real: int) -> None:
        self._real = real
        self._original: _Attributes = termios.tcgetattr(real)
        self.controller, self.child_end = os.openpty()
        try:
            attributes = termios.tcgetattr(real)
            attributes[_OFLAG] &= ~termios.ONLCR
            termios.tcsetattr(self.child_end, termios.TCSANOW, attributes)
            self._quiet: _Attributes = termios.tcgetattr(self.child_end)
        except (OSError, termios.error):
            os.close(self.controller)
            os.close(self.child_end)
            raise
        self._last_seen = self._quiet
        self._changed_real = False
        self.copy_window_size()

    def copy_window_size(self) -> bool:
        """Give our terminal the size of the real one.

        Returns:
            Whether the size changed.
        """
        try:
            size = fcntl.ioctl(self._real, termios.TIOCGWINSZ, bytes(_WINDOW_SIZE_BYTES))
            if size == fcntl.ioctl(self.controller, termios.TIOCGWINSZ, bytes(_WINDOW_SIZE_BYTES)):
                return False
            fcntl.ioctl(self.controller, termios.TIOCSWINSZ, size)
        except OSError:
            return False
        return True

    def copy_modes(self, *, again: bool = False) -> None:
        """Give the real terminal the modes that the command set on ours; cheap when nothing changed.

        Args:
            again: Also when nothing changed on our side, since another program had the real terminal meanwhile.
        """
        try:
            modes: _Attributes = termios.tcgetattr(self.controller)
            if modes == self._last_seen and not (again and self._changed_real):
                return
            self._last_seen = modes
            self._set_real(self._original if modes == self._quiet else self._translated(modes))
            self._changed_real = modes != self._quiet
        except (OSError, termios.error):
            return

    def restore(self) -> None:
        """Put the real terminal's modes back, if a command left them changed."""
        if self._changed_real:
            self._changed_real = False
            try:
                self._set_real(self._original)
            except (OSError, termios.error):
                return

    def _translated(self, modes: _Attributes) -> _Attributes:
        """What the real terminal needs so that the command finds it as it believes it to be."""
        wanted = list(modes)
        is_line_mode = bool(_flag(modes, _LFLAG) & termios.ICANON) and bool(
            _flag(modes, _IFLAG) & termios.ICRNL
        )
        if is_line_mode:  # only echo or the like was changed: the line ends are still ours to translate
            wanted[_OFLAG] = _flag(modes, _OFLAG) | (_flag(self._original, _OFLAG) & termios.ONLCR)
        return wanted

    def _set_real(self, attributes: _Attributes) -> None:
        """Set modes, only while we are in the foreground: the terminal belongs to another job otherwise."""
        try:
            if os.tcgetpgrp(self._real) != os.getpgrp():
                return
        except OSError:
            pass  # not our controlling terminal, so nobody's foreground either
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            termios.tcsetattr(self._real, termios.TCSADRAIN, attributes)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _flag(attributes: _Attributes, index: int) -> int:
    value = attributes[index]
    assert isinstance(value, int)
    return value
