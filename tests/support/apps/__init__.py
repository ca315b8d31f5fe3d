"""Real applications under load, in the image that scripts/lib/apps.sh makes."""
