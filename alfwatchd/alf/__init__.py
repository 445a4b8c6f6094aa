"""The grammar of ALF paths, and the ids that follow from them.

It says what is a session, a dataset, an excluded or a misplaced folder. **Pure: strings in, values out.** Face:
`grammar.parse_session`, `grammar.split_dataset`, `ids.session_id`, `ids.dataset_id`, `exclude.compile_exclude`,
`patterns.DatasetPattern`.
"""
