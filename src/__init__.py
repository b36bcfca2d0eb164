"""The project's code. Every command imports this first: here an older Python, which can read this, is refused."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036
    sys.stderr.write("error: this is Python %d.%d, but Python 3.10 or newer is needed\n" % sys.version_info[:2])  # noqa: UP031
    sys.exit(2)
