"""Recipes: what they may hold (`schema`) and how they are read (`load`)."""
