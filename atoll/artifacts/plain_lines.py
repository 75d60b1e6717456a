"""Plain Python that puts an adapter on its model where PEFT has no such type."""

from __future__ import annotations

__all__ = ["bottleneck_lines"]

_BOTTLENECK = """values = load_file("model.safetensors")
inside = {name: values.pop(name) for name in list(values) if ".adapter_" in name}
assert not model.load_state_dict(values, strict=False).unexpected_keys


def bottleneck(name):
    down, up = (
        (inside[f"{name}.adapter_{part}.weight"], inside[f"{name}.adapter_{part}.bias"])
        for part in ("down", "up")
    )

    def after(module, args, out):
        low = torch.nn.functional.linear(out.to(down[0].dtype), *down)
        low = torch.nn.functional.linear(torch.nn.functional.ACTIVATION(low), *up)
        return out + low.to(out.dtype)

    return after


for name in {key.partition(".adapter_")[0] for key in inside}:
    model.get_submodule(name).register_forward_hook(bottleneck(name))"""


def bottleneck_lines(activation: str) -> str:
    """Lines that put trained bottlenecks, and whatever else trained, on a loaded `model`.

    activation: as `adapter.activation` names it.
    """
    return _BOTTLENECK.replace("ACTIVATION", activation)
