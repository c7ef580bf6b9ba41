"""The Python half of `gymnasium:ID` environments: what is done once, not in every step."""

import functools
import importlib
import io
import os
import pickle
import site
import sys


def activate():
    """Puts the packages of the active virtual environment first, as its own interpreter would."""
    folder = os.environ.get("VIRTUAL_ENV")
    if not folder:
        return
    version = "python%d.%d" % sys.version_info[:2]
    packages = os.path.join(folder, "lib", version, "site-packages")
    if not os.path.isdir(packages):
        raise ImportError(f"the active virtual environment {folder} is not one of {version}: it has no {packages}")
    before = list(sys.path)
    site.addsitedir(packages)
    sys.path[:] = [path for path in sys.path if path not in before] + before


def interpreter():
    return "Python %d.%d.%d" % sys.version_info[:3] + " at " + sys.prefix


# Packages whose environments are registered when they are imported.
PACKAGES = {"ALE": "ale_py"}


def register(name):
    import gymnasium

    package = PACKAGES.get(name.split("/")[0])
    if package and name not in gymnasium.registry:
        gymnasium.register_envs(importlib.import_module(package))


def spec(name):
    """Step limit, reward threshold, frames a second."""
    import gymnasium

    register(name)
    found = gymnasium.spec(name)
    try:
        creator = found.entry_point
        creator = creator if callable(creator) else gymnasium.envs.registration.load_env_creator(creator)
        frames = int(creator.metadata["render_fps"])
    except Exception:
        frames = 30
    return found.max_episode_steps, found.reward_threshold, frames


def make(name, kwargs):
    """The environment without Gymnasium's time limit, which the caller keeps, and whether it draws pictures."""
    import gymnasium

    register(name)
    kwargs = dict(disable_env_checker=True, max_episode_steps=-1) | kwargs
    if "render_mode" in kwargs:
        env = gymnasium.make(name, **kwargs)
    else:
        creator = gymnasium.spec(name).entry_point
        creator = creator if callable(creator) else gymnasium.envs.registration.load_env_creator(creator)
        modes = getattr(creator, "metadata", None)
        modes = modes.get("render_modes", []) if isinstance(modes, dict) else []
        extra = dict(render_mode="rgb_array") if "rgb_array" in modes else {}
        env = gymnasium.make(name, **extra, **kwargs)
    return env, env.render_mode == "rgb_array"


def describe(space):
    """A space as nested tuples of plain values."""
    import numpy as np
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        if space.dtype.kind == "f":
            kind = "f32"
        elif space.dtype.kind == "b" or space.dtype == np.uint8:
            kind = "u8"
        elif space.dtype.kind in "iu":
            kind = "i32"
            if space.low.min() < -(2**31) or space.high.max() >= 2**31:
                raise TypeError(f"{space} has bounds beyond 32-bit integers")
        else:
            raise TypeError(f"{space} has elements of type {space.dtype}")
        low, high = (np.asarray(bound, np.float32).ravel().tolist() for bound in (space.low, space.high))
        return "box", kind, list(space.shape), low, high
    if isinstance(space, spaces.Discrete):
        return "discrete", int(space.n), int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        if np.any(space.start):
            raise TypeError(f"{space} does not start at zero")
        return "multi_discrete", np.ravel(space.nvec).tolist()
    if isinstance(space, spaces.MultiBinary):
        return "multi_binary", list(space.shape)
    if isinstance(space, spaces.Tuple):
        return "tuple", [describe(part) for part in space.spaces]
    if isinstance(space, spaces.Dict):
        return "dict", [(key, describe(part)) for key, part in space.spaces.items()]
    raise TypeError(f"{space} is not one of Box, Discrete, MultiDiscrete, MultiBinary, Tuple, Dict")


def leaves(space, row):
    """For each leaf that is an array, what makes one to be filled from a row of the type `row`, and the type to convert
    it to then; None for a Discrete."""
    import numpy as np
    from gymnasium import spaces

    if isinstance(space, spaces.Tuple):
        return [leaf for part in space.spaces for leaf in leaves(part, row)]
    if isinstance(space, spaces.Dict):
        return [leaf for part in space.spaces.values() for leaf in leaves(part, row)]
    if isinstance(space, spaces.Discrete):
        return [None]
    return [(functools.partial(np.empty, space.shape, row), None if space.dtype == row else space.dtype)]


class _Pickler(pickle.Pickler):
    """Leaves out windows and surfaces: environments make them anew when they are None."""

    def persistent_id(self, obj):
        return "drawing" if type(obj).__module__.partition(".")[0] == "pygame" else None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid):
        return None


def snapshot(env):
    """The whole environment as bytes. Raises where it would come back as something else."""
    from gymnasium.utils import EzPickle

    layer = env
    while True:
        if isinstance(layer, EzPickle):
            raise TypeError(f"{type(layer).__name__} is pickled by its constructor's arguments, without its state")
        if layer is env.unwrapped:
            break
        layer = layer.env
    out = io.BytesIO()
    _Pickler(out, protocol=5).dump(env)
    return out.getvalue()


def restore(data):
    return _Unpickler(io.BytesIO(data)).load()
