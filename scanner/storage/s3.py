"""A store on S3 or a server that speaks as S3 does.

In: a location ``s3://bucket/prefix``. Out: a :class:`~scanner.storage.contract.Store`. Refused: see the contract.
"""
