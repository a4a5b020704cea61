"""Where keys live: sign, seal and count. This room knows no money."""
