"""HTTP: the control API with the change feed, its Python client, and the site that gives tables to remote ONE clients.

It limits size, time and number of requests. **It never touches the tree, and is the only importer of FastAPI, uvicorn
and prometheus-client.** Face: `client.Client`, `control_api.create_app`, `http_server.Server`, `tables_site.Site`.
"""
