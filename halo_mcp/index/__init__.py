"""Files and spans: reading, indexing, querying. Knows neither MCP nor language models; synchronous."""
