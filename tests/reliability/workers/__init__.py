"""Those who work on a site: what each does is planned, done, recorded, and cancelled at times."""
