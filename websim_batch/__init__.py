"""Send a table of prompts to a chat or image endpoint; lose nothing, pay nothing twice."""

__version__ = "0.1.0"
