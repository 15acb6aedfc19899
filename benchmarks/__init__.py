"""How fast and how light it is, beside a floor and beside its peers; see README.md in this directory."""
