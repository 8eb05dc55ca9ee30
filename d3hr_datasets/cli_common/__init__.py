"""What commands share: errors on one line, options, and what they print. No command is here."""
