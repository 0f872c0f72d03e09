"""Workers on other machines, through Dask; the only room that knows it."""
