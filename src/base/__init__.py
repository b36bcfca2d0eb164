"""The ground floor, imported before any library that reads the environment."""

from src.base.environment import forget_odd_variables

forget_odd_variables()
