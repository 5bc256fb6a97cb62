"""ComfyUI's sampler interface, as far as a custom sampler node meets it: written from its documentation."""

import sys
import types


class KSAMPLER:
    """Holds a sampler function with options, and calls it between the noise and the result."""

    def __init__(self, sampler_function, extra_options=None, inpaint_options=None):
        self.sampler_function = sampler_function
        self.extra_options = dict(extra_options or {})

    def sample(self, model, sigmas, extra_args, callback, noise, latent_image, disable_pbar=True):
        total = len(sigmas) - 1

        def told(info):
            callback(info["i"], info["denoised"], info["x"], total)

        return self.sampler_function(
            model, noise * sigmas[0] + latent_image, sigmas, extra_args=extra_args,
            callback=None if callback is None else told, disable=disable_pbar, **self.extra_options,
        )  # fmt: skip


def install(monkeypatch):
    """Makes `import comfy.samplers` find the stub."""
    package, samplers = types.ModuleType("comfy"), types.ModuleType("comfy.samplers")
    package.samplers, samplers.KSAMPLER = samplers, KSAMPLER
    monkeypatch.setitem(sys.modules, "comfy", package)
    monkeypatch.setitem(sys.modules, "comfy.samplers", samplers)
