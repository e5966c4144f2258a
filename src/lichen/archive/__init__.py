"""Leaving Lichen: archives that anybody can check, and the way back."""
