"""HTTP: the control API on the Unix socket, its Python client, and the site that gives tables to remote ONE clients.

Everything that a client can cause is limited in size, time and number. `web` never touches the tree. The only importer
of FastAPI and uvicorn. Face: `client.Client`, `control_api.create_app`, `http_server.Server`, `tables_site.Site`.
"""
