"""The screens: one a module, each with its style sheet. They never import torch."""
