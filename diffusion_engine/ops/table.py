"""Every implementation of every op, and which to prefer where. Strings: nothing is imported here."""

IMPLEMENTATIONS = {
    ("step", "torch"): "diffusion_engine.ops.step:bind_reference",
    ("step", "cpp"): "diffusion_engine.backends.native:bind_step_cpp",
    ("step", "triton"): "diffusion_engine.kernels.step:bind_step",
    ("step", "cuda"): "diffusion_engine.backends.native:bind_step_cuda",
    ("noise", "torch"): "diffusion_engine.ops.noise:bind_reference",
    ("noise", "cpp"): "diffusion_engine.backends.native:bind_noise_cpp",
    ("noise", "triton"): "diffusion_engine.kernels.noise:bind_noise",
    ("noise", "cuda"): "diffusion_engine.backends.native:bind_noise_cuda",
}

PREFERENCE = {
    "cuda": ("cuda", "triton", "torch"),
    "cpu": ("cpp", "torch"),
}
