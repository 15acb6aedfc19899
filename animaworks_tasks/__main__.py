"""``python -m animaworks_tasks``: ``animaworks-tool`` under a name that nobody else's package has."""

import sys

from animaworks_tasks.cli import main

sys.exit(main())
