"""Where an asset's files may come from: the user's own folder, the hub, a package of pip, apt or npm."""


class SourceUnavailable(Exception):
    """A source does not have the asset or does not answer; the next one is tried. The message is the reason, without a full stop."""
