"""HTTP: the control API on the Unix socket, its Python client, and the site that remote ONE clients ask.

It limits size, time and number of requests. **It never touches the tree, and is the only importer of FastAPI and
uvicorn.** Face: `client.Client`, `control_api.create_app`, `tables_site.Site`.
"""
