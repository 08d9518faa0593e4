"""From a request to prompt tokens: templates, tokenizing, grammars."""
