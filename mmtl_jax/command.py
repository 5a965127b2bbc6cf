"""What every verb does around its work: bad input becomes one sentence and an exit code, not a traceback."""

import sys
import traceback
from collections.abc import Callable

from absl import app, flags, logging

DEBUG = flags.DEFINE_bool('debug', False, 'Show the traceback of an error.')
INTERRUPTED = 130


def run_command(work: Callable[[], None]) -> None:
    """Parses the flags, does `work` and exits: 0 = done, 1 = bad input, 130 = stopped by a signal."""

    def main(arguments):
        if len(arguments) > 1:
            return _fail(f'unexpected argument {arguments[1]!r}; everything is given as --flag=value.')
        logging.set_verbosity(logging.DEBUG if DEBUG.value else logging.ERROR)
        try:
            work()
        except (ValueError, OSError, ModuleNotFoundError) as error:
            return _fail(str(error) or type(error).__name__)
        except KeyboardInterrupt as interruption:
            print(interruption or 'interrupted.', file=sys.stderr)
            return INTERRUPTED
        return 0

    app.run(main)


def _fail(sentence: str) -> int:
    if DEBUG.value:
        traceback.print_exc()
    print(f'error: {sentence}', file=sys.stderr)
    return 1
