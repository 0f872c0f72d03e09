"""Terminal output: tables, curves, images and progress bars. The only package that imports rich."""
