"""Finding components: hook specifications, the plugin manager, and the registry of components."""

import pluggy

from icltool.plugin.registration import KINDS, Registration

hookimpl = pluggy.HookimplMarker("icltool")

__all__ = ["KINDS", "Registration", "hookimpl"]
