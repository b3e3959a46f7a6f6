"""One converter per asset: from what the package holds to a Hugging Face / timm folder or to shards.

Every converter module has ``convert(sources, out)``: ``sources`` maps a package's name to its unpacked folder (``"local"``: a raw
local folder), ``out`` is an existing empty folder. Nothing of a package is ever imported or executed.
"""
