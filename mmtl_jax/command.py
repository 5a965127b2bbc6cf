"""What every verb does around its work: bad input becomes one sentence and an exit code, not a traceback."""

import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import flags, logging

DONE, BAD_INPUT, INTERRUPTED = 0, 1, 130


def run_command(
    what: str, values: flags.FlagValues, work: Callable[[], None], *, required: Sequence[str] = ('workdir',)
) -> int:
    """Parses the command line into `values`, does `work` and returns the exit code.

    0 = done, 1 = bad input (one line on stderr says what and what to do), 130 = stopped by a signal. Whatever is not
    bad input, but a defect, keeps its traceback.

    Args:
      what: the command in a sentence, for `--help`.
      values: the flags of this command alone, so that a program can hold several commands.
      work: to be done once the flags are parsed; reads them.
      required: flags that cannot be left out.
    """
    flags.DEFINE_bool('debug', False, 'Show the traceback of an error.', flag_values=values)
    flags.DEFINE_bool('help', False, 'Show this help.', short_name='h', flag_values=values)
    path = config_path(sys.argv) if 'config' in values else None
    if path is not None and not pathlib.Path(path).is_file():
        return _fail(f'there is no config file {path!r}; give the path of one, such as --config=configs/synthetic.py.')
    try:
        rest = values(sys.argv)[1:]
    except Exception as error:  # configs are programs, and flags turn what they raise into errors of their own
        if '--debug' in sys.argv:
            traceback.print_exc()
        return _fail(flag_error(error, sys.argv))
    if values.help:
        print(f'{what}\n{values.get_help()}')
        return DONE
    if rest:
        return _fail(f'unexpected argument {rest[0]!r}; everything is given as --flag=value.')
    missing = [name for name in required if values[name].value in (None, '')]
    if missing:
        return _fail(
            f'--{missing[0]} is missing; the command needs {" and ".join(f"--{name}=..." for name in required)}.'
        )
    logging.set_verbosity(logging.DEBUG if values.debug else logging.ERROR)
    try:
        work()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if values.debug:
            traceback.print_exc()
        return _fail(str(error) or type(error).__name__)
    except KeyboardInterrupt as interruption:
        print(str(interruption) or 'interrupted.', file=sys.stderr)
        return INTERRUPTED
    return DONE


def flag_error(error: Exception, arguments: Sequence[str]) -> str:
    """Returns in one sentence why the command line could not be parsed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if 'Error whilst parsing config file' in str(error):
        return lines[-1].removeprefix('ValueError: ')  # the lines above it are a traceback
    if isinstance(error, (AttributeError, KeyError)):
        override = _unknown_override(' '.join(lines), arguments)
        if override is not None:
            return override
    if isinstance(error, flags.Error):
        return ' '.join(lines)
    return f'the config {config_path(arguments)} cannot be read: {type(error).__name__}: {" ".join(lines)}'


def config_path(arguments: Sequence[str]) -> str | None:
    """Returns the path in `--config=path:argument` or `--config path:argument`, None without that flag."""
    for place, argument in enumerate(arguments):
        found = re.fullmatch(r'--?config(?:=(.*))?', argument)
        if found:
            value = found[1] if found[1] is not None else ''.join(arguments[place + 1 : place + 2])
            return value.split(':', 1)[0]
    return None


def _unknown_override(message: str, arguments: Sequence[str]) -> str | None:
    """Returns which override names a key that the config lacks, None where `message` is about something else."""
    close = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', message)
    words = [close[2]] if close else re.findall(r'\w+', message)
    hint = f'did you mean {close[1]!r}?' if close else 'only keys that stand in the config file can be overridden.'
    for argument in arguments:
        override = argument.split('=', 1)[0]
        keys = override.split('.')[1:] if re.match(r'--?(no)?config\.', override) else []
        wrong = next((word for word in words if word in keys), None)
        if wrong is not None:
            return f'the config has no key {wrong!r}, which {override} names; {hint}'
    return None


def _fail(sentence: str) -> int:
    print(f'error: {" ".join(sentence.split())}', file=sys.stderr)
    return BAD_INPUT
