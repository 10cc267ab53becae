"""Print the arguments that install the given projects as editable, with all their extras."""

import sys
import tomllib
from pathlib import Path

for name in sys.argv[1:]:
    manifest = Path(name)
    project = tomllib.loads(manifest.read_text(encoding="utf-8"))["project"]
    extras = ",".join(project.get("optional-dependencies", {}))
    sys.stdout.write(f"-e ./{manifest.parent.as_posix()}{f'[{extras}]' if extras else ''}\n")
