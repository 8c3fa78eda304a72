"""links.py FOLDER URL: give a copy of the repository the links that a package index shows.

Relative links in README.md become absolute, and pyproject.toml gets `[project.urls]`.
"""

import re
import sys
from pathlib import Path

folder, url = Path(sys.argv[1]), sys.argv[2].rstrip("/")

readme = folder / "README.md"
text = readme.read_text("utf-8")
text = re.sub(r"(?<=\]\()(?!https?:|#)(?=[^)]+\.(?:svg|png)\))", f"{url}/raw/main/", text)
text = re.sub(r"(?<=\]\()(?!https?:|#)(?=[^)]+\))", f"{url}/blob/main/", text)
text = re.sub(r'(?<=(?:src|set)=")(?!https?:)(?=[^"]+")', f"{url}/raw/main/", text)
readme.write_text(text, "utf-8")

pyproject = folder / "pyproject.toml"
urls = {
    "Source": url,
    "Documentation": f"{url}/blob/main/README.md",
    "Changelog": f"{url}/blob/main/CHANGELOG.md",
    "Issues": f"{url}/issues",
}
table = "".join(f'{name} = "{address}"\n' for name, address in urls.items())
old = pyproject.read_text("utf-8")
new = old.replace("[project.scripts]\n", f"[project.urls]\n{table}\n[project.scripts]\n", 1)
if new == old:
    sys.exit("pyproject.toml has no [project.scripts], before which the links belong")
pyproject.write_text(new, "utf-8")
