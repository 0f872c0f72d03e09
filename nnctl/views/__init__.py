"""What people look at. The only room that knows rich."""
