"""Files, texts and repositories of others -> what this library may use of them; and files written whole."""
