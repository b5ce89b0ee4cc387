"""The tools that a model may call: functions, and those of MCP servers. Knows no bus."""
