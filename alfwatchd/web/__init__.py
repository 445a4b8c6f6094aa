"""HTTP, in and out: the control API on the Unix socket, its Python client, the site that remote ONE clients ask.

Limits on size, time and number for both; never touches the tree. The only importer of FastAPI and uvicorn. Face:
`client.Client`, `control_api.create_app`, `tables_site.Site`.
"""
