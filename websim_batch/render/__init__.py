"""From a row to a request: which columns mean what, what a row asks for, and how both are known again."""

from websim_batch.render.renderer import SKIP, Renderer, Skip

__all__ = ["SKIP", "Renderer", "Skip"]
