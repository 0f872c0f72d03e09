"""Pool of workers on a Dask cluster; the only package that imports Dask."""
