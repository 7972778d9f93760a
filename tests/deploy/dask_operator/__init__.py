"""The real Dask operator, between an API server of this folder's and processes of this machine that stand for pods."""
