"""The engine against others."""
