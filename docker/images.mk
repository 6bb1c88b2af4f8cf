# The images, included by the Makefile.
#   make images            mnist-tf and mnist-torch; MNIST is downloaded during the build
#   make images DATA=DIR   MNIST is copied from the IDX files (gz or raw) in DIR
#   make test-images       builds them and mnist-merge, then tests them

DOCKER ?= docker
IMAGES := mnist-tf mnist-torch
# Needed only by clusters that merge on a shared volume (k8s/overlays/merge).
MERGE_IMAGE := mnist-merge
override IMAGE_VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' jobs/__init__.py)
override IMAGE_GIT_SHA = $(shell git rev-parse HEAD 2>/dev/null)$(shell test -z "$$(git status --porcelain 2>/dev/null)" || echo -dirty)

# As in the Makefile: values reach the commands through the environment.
override DATA := $(value DATA)
override IMAGE_BASE := $(or $(value IMAGE_BASE),python:3.13-slim-trixie)
override IMAGE_TAG := $(or $(value IMAGE_TAG),$(IMAGE_VERSION))
override MNIST_MIRRORS := $(value MNIST_MIRRORS)
override REGISTRY := $(value REGISTRY)
override TAG := $(value TAG)
export DATA IMAGE_BASE IMAGE_TAG MNIST_MIRRORS REGISTRY TAG

# Each image's maximum size in GB (10^9 bytes), and the extra that it contains.
budget_gb_mnist-tf := 6.0
budget_gb_mnist-torch := 5.6
budget_gb_mnist-merge := 0.6
extra_mnist-tf := tf-cuda
extra_mnist-torch := torch
extra_mnist-merge := compare

ALL_IMAGES := $(IMAGES) $(MERGE_IMAGE)

.PHONY: images image-values sbom test-images push-images release-notes $(ALL_IMAGES:%=image-%)

images: $(IMAGES:%=image-%) ## build both images and check their size; DATA=DIR copies MNIST from a folder
	@$(foreach image,$(IMAGES),$(call check_size,$(image)) &&) true

# Checked before anything is copied or built: a command could read the value as an option, or Docker would refuse it.
image-values:
	@refuse() { printf 'error: %s\n' "$$1" >&2; exit 2; }; \
	case "$$DATA" in -*) refuse "DATA=$$DATA begins with -; write ./$$DATA if that is the folder's name" ;; esac; \
	case "$$MNIST_MIRRORS" in -*) refuse "MNIST_MIRRORS=$$MNIST_MIRRORS begins with -; give web addresses" ;; esac; \
	case "$$IMAGE_TAG" in [!A-Za-z0-9_]* | *[!A-Za-z0-9_.-]*) \
		refuse "IMAGE_TAG=$$IMAGE_TAG is no tag; give letters, digits and _ . - with no . or - first" ;; esac; \
	case "$$IMAGE_BASE" in [!A-Za-z0-9]* | *[!A-Za-z0-9_.:/@-]*) \
		refuse "IMAGE_BASE=$$IMAGE_BASE is no image; give one such as python:3.13-slim-trixie" ;; esac

# $(call check_size,IMAGE): print its size, and fail above its budget.
define check_size
$(DOCKER) image inspect --format '{{.Size}}' "$(1):$$IMAGE_TAG" \
| awk -v name="$(1):$$IMAGE_TAG" -v budget=$(budget_gb_$(1)) \
	'{ printf "%-24s %.2f GB of %.1f GB\n", name, $$1 / 1e9, budget; over = $$1 + 0 > budget * 1e9 } \
	END { if (over) print "error: " name " is over its budget; see docker/slim.sh" > "/dev/stderr"; exit over || !NR }'
endef

# Docker reads only the build context, so the files are copied into it. The copy is completed before it replaces an
# earlier one, because DATA may be that earlier copy.
ifneq ($(DATA),)
IMAGE_DATA := build/mnist
.PHONY: $(IMAGE_DATA)
$(IMAGE_DATA): image-values
	@mkdir -p build && new=$$(mktemp -d build/mnist.XXXXXX) && trap 'rm -rf "$$new"' EXIT || exit; \
	for file in "$$DATA"/*ubyte "$$DATA"/*ubyte.gz; do \
		if [ -f "$$file" ]; then cp -- "$$file" "$$new" || exit; fi; \
	done; \
	[ -n "$$(ls "$$new")" ] \
		|| { printf 'error: DATA=%s holds no IDX files (*ubyte or *ubyte.gz)\n' "$$DATA" >&2; exit 2; }; \
	chmod -R u+rwX,go+rX "$$new" && rm -rf $@ && mv "$$new" $@
endif

$(IMAGES:%=image-%): $(IMAGE_DATA)

$(ALL_IMAGES:%=image-%): image-%: image-values
	DOCKER_BUILDKIT=1 $(DOCKER) build --file docker/Dockerfile --target $* \
		--build-arg "BASE=$$IMAGE_BASE" \
		--build-arg MNIST_FROM=$(if $(DATA),folder,download) \
		$(if $(MNIST_MIRRORS),--build-arg "MNIST_MIRRORS=$$MNIST_MIRRORS") \
		--build-arg VERSION=$(IMAGE_VERSION) \
		--build-arg GIT_SHA=$(IMAGE_GIT_SHA) \
		--build-arg "IMAGE_REF=$*:$$IMAGE_TAG" \
		--tag "$*:$$IMAGE_TAG" --tag $*:latest .

sbom: $(ALL_IMAGES:%=build/sbom/%.cdx.json) ## write each image's bill of materials (CycloneDX) into build/sbom

# The same command writes /usr/share/sbom in the image; see docker/Dockerfile.
build/sbom/%.cdx.json: pyproject.toml uv.lock | $(filter .tools/bin/uv,$(UV))
	@mkdir -p $(@D)
	$(UV) export --locked --no-dev --extra $(extra_$*) --format cyclonedx1.5 --quiet \
		--preview-features sbom-export --output-file $@

test-images: images image-$(MERGE_IMAGE) .venv/.synced ## build the images and test them
	@$(call check_size,$(MERGE_IMAGE))
	MNIST_JOBS_REQUIRE_IMAGES=1 MNIST_JOBS_DOCKER="$(DOCKER)" MNIST_JOBS_IMAGE_TAG="$$IMAGE_TAG" \
		.venv/bin/python -m pytest tests/docker

push-images: image-values ## push the images to REGISTRY and print their digests
	@case "$$REGISTRY" in [!a-z0-9]* | *[!a-z0-9._:/-]* | '') \
		printf 'error: REGISTRY=%s is no registry; give one such as ghcr.io/owner\n' "$$REGISTRY" >&2; exit 2 ;; esac
	@for image in $(ALL_IMAGES); do \
		$(DOCKER) tag "$$image:$$IMAGE_TAG" "$$REGISTRY/$$image:$$IMAGE_TAG" \
		&& $(DOCKER) push "$$REGISTRY/$$image:$$IMAGE_TAG" >&2 \
		&& digest=$$($(DOCKER) image inspect --format '{{index .RepoDigests 0}}' "$$REGISTRY/$$image:$$IMAGE_TAG") \
		&& echo "$$image=$${digest#*@}" || exit; \
	done

release-notes: ## write this version's changelog section to build/release/notes.md; checks TAG
	@[ "$${TAG:-v$(IMAGE_VERSION)}" = "v$(IMAGE_VERSION)" ] \
		|| { printf 'error: TAG=%s is not v%s, the version in jobs/__init__.py\n' "$$TAG" "$(IMAGE_VERSION)" >&2; exit 2; }
	@mkdir -p build/release
	@awk -v version="$(IMAGE_VERSION)" '/^## / { inside = $$2 == version && !/unreleased/; next } inside' CHANGELOG.md \
		> build/release/notes.md
	@grep -q . build/release/notes.md \
		|| { echo "error: CHANGELOG.md has no section '## $(IMAGE_VERSION) (DATE)'; name the day of the release there" >&2; exit 2; }
